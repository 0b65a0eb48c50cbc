"""Model backends, all behind the one seam in `genprm.models.base`."""
