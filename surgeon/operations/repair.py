"""Operation ``repair``: mend what earlier steps cut, as a step of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Literal

from surgeon.calibrate.consumers import consumer_params
from surgeon.errors import InfeasibleError
from surgeon.graph import Graph, Selector
from surgeon.operations.mending import repaired_experts
from surgeon.operations.operation import Operation, Proposal, operations
from surgeon.operations.repairing import mended
from surgeon.operations.state import State
from surgeon.plan import Choice, Plan, gone_prefixes, kept_of, tagged_field
from surgeon.repair import Cut, Repair, bias_name, projections, repairs
from surgeon.repair.refit import Refit

__all__ = ["RepairStep"]


@operations.register("repair")
class RepairStep(Operation):
    """Repair the projections that contract the selected Axes, whatever was cut before this step.

    As the field ``repair`` of steps that cut, but for everything at once, from the front: projections that
    lost nothing are fitted as well, and take over what others lost. A refit toward the stream starts from
    the weights that there are; the others go by the original's weights and inputs.

    YAML::

        - op: repair
          select: {kind: [kv_group, ffn]}
          repair: {repair: refit, target: stream}
    """

    op: Literal["repair"] = "repair"
    select: Selector
    """The Axes whose consumers are repaired."""
    repair: Annotated[Repair, tagged_field(repairs, "repair")] = Refit()
    """How."""

    def biases(self, graph: Graph) -> tuple[str, ...]:
        """Of every selected projection, where the repair wants them."""
        if not self.repair.wants_bias:
            return ()
        return tuple(bias_name(param) for param in consumer_params(graph, self.select.on(graph)))

    def requires(self, state: State) -> None:
        """Something that repairs."""
        if not self.repair.needs_text:
            raise InfeasibleError(f"repair '{self.repair.repair}' repairs nothing", hint="repair: refit")

    def propose(self, state: State) -> Proposal:
        """New values of the projections that are left."""
        gone = gone_prefixes(state.plan, state.graph)
        cuts = tuple(
            cut
            for cut in projections(state.selected(self.select), state.plan, state.graph)
            if not cut.param.startswith(gone)
        )
        original = replace(state, plan=Plan(state.plan.model_type, fingerprint=state.plan.fingerprint))
        streamed = isinstance(self.repair, Refit) and self.repair.target == "stream"
        done = mended(self.repair, cuts, state if streamed else original, state.plan)
        done = done.then(repaired_experts(self.repair, original, state.after(*done.on(()))))
        return Proposal(
            done.edits,
            _choices(cuts, state, set(done.values)),
            refused=state.spared(self.select),
            notes=(f"{len(done.values)} tensors repaired", *done.notes),
            values=done.values,
        )


def _choices(cuts: tuple[Cut, ...], state: State, mended: set[str]) -> tuple[Choice, ...]:
    """One line for every Axis whose consumers were repaired."""
    axes = {
        group.name: group
        for cut in cuts
        for group, site in state.graph.sites[cut.param]
        if cut.param in mended and site.dim == cut.dim and site.role == "consumer"
    }
    return tuple(
        Choice(axis=name, size=group.size, kept=len(kept_of(state.plan, group)), why="consumer repaired")
        for name, group in axes.items()
    )
