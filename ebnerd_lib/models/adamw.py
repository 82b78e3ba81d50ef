"""AdamW whose steps on tables of ids cost what the batch holds, however many users there are."""

from collections.abc import Callable
from typing import Any

import torch


class RowwiseAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter, 2019) that moves only those rows of a table that the batch has looked at.

    A parameter with a sparse gradient, as of ``nn.Embedding(sparse=True)``, is stepped on by row: the moments and the
    decay of a row stand still while no batch has it, as in ``torch.optim.SparseAdam``. All others are stepped
    on by torch's fused kernel. The state is that of AdamW, so checkpoints hold one optimizer and one schedule.

    Args:
        groups: of parameters, with their ``weight_decay``.
        lr: learning rate.
    """

    def __init__(self, groups: list[dict[str, Any]], lr: float) -> None:
        super().__init__(groups, lr=lr, fused=True)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take one step; ``closure`` computes the loss and the gradients, if given, and its result is returned."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tables = [
            (group, table, table.grad)
            for group in self.param_groups
            for table in group["params"]
            if table.grad is not None and table.grad.is_sparse
        ]
        for _, table, _ in tables:
            table.grad = None
        super().step()
        for group, table, gradient in tables:
            self._move_rows(group, table, gradient.coalesce())
            table.grad = gradient
        return loss

    def _move_rows(self, group: dict[str, Any], table: torch.Tensor, gradient: torch.Tensor) -> None:
        """Step on the rows of a coalesced sparse gradient."""
        state = self.state[table]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=table.device)
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(table), torch.zeros_like(table)
        state["step"] += 1
        step, (beta, beta_2) = state["step"].item(), group["betas"]
        rows, slope = gradient.indices()[0], gradient.values()
        mean = state["exp_avg"].index_select(0, rows).lerp_(slope, 1 - beta)
        square = state["exp_avg_sq"].index_select(0, rows).mul_(beta_2).addcmul_(slope, slope, value=1 - beta_2)
        state["exp_avg"].index_copy_(0, rows, mean)
        state["exp_avg_sq"].index_copy_(0, rows, square)
        own = table.index_select(0, rows).mul_(1 - group["lr"] * group["weight_decay"])
        deviation = square.sqrt_().div_((1 - beta_2**step) ** 0.5).add_(group["eps"])
        table.index_copy_(0, rows, own.addcdiv_(mean, deviation, value=-group["lr"] / (1 - beta**step)))
