"""From YAML to validated steps, to digests, to a run; no input or output happens here."""

from qsm_dask.pipeline.plan import NodeResult, Plan, PlanNode
from qsm_dask.pipeline.schema import Pipeline
from qsm_dask.pipeline.steps import Step

__all__ = ["NodeResult", "Pipeline", "Plan", "PlanNode", "Step"]
