"""Names the methods with the highest mean on test: one, or several that print alike, which are tied."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.report.cells import Cell
from experiments.report.chart_data import column_label, column_of, first_order
from experiments.report.comparison import Comparison
from experiments.report.tables.table import percent, spread


@dataclass(frozen=True)
class Leader:
    """The methods with the highest mean, as it is printed, in the most columns.

    leads: in how many columns each of them is highest, alone or tied. columns, of: how many columns and methods have a
    result. cell: of the first of them where there is one column alone. unlearned: whether all runs behind the means of
    these methods have learned nothing.
    """

    methods: tuple[str, ...]
    leads: int
    columns: int
    of: int
    cell: Cell
    unlearned: bool

    @property
    def names(self) -> str:
        """fzoo; fzoo and mezo; fzoo, lozo and mezo."""
        *most, last = self.methods
        return f"{', '.join(most)} and {last}" if most else last


def leader(cells: Sequence[Cell]) -> Leader | None:
    """Returns the leader among the cells with a result; None without one."""
    ended = [cell for cell in cells if cell.mean is not None]
    columns = sorted({column_of(cell) for cell in ended})
    first: list[Cell] = []
    for column in columns:
        own = [cell for cell in ended if column_of(cell) == column]
        highest = percent(max(cell.mean or 0.0 for cell in own))
        first += [cell for cell in own if percent(cell.mean) == highest]
    if not first:
        return None
    leads = Counter(cell.method for cell in first)
    most = max(leads.values())
    methods = tuple(sorted(method for method, count in leads.items() if count == most))
    behind = [cell for cell in first if cell.method in methods]
    return Leader(
        methods, most, len(columns), len({cell.method for cell in ended}), behind[0],
        all(len(cell.learned_nothing) == cell.n for cell in behind),
    )  # fmt: skip


def headlines(comparison: Comparison) -> list[str]:
    """Returns a sentence for the methods of forward passes only, and one for those of first order."""
    kinds = {
        "Forward passes only": [cell for cell in comparison.cells if not first_order(cell)],
        "First order": [cell for cell in comparison.cells if first_order(cell)],
    }
    leaders = {kind: leader(cells) for kind, cells in kinds.items()}
    return [f"{kind}: {sentence(found)}" for kind, found in leaders.items() if found is not None]


def sentence(found: Leader) -> str:
    """fzoo and mezo, 46.0 % each, are tied for the highest mean of 2 on sst2 · opt-125m."""
    several = len(found.methods) > 1
    if found.columns == 1:
        of = f" of {found.of}" if found.of > 1 else ""
        where = column_label(column_of(found.cell))
        if several:
            text = f"{found.names}, {percent(found.cell.mean)} % each, are tied for the highest mean{of} on {where}"
        else:
            mean = spread(found.cell.mean, found.cell.deviation)
            text = f"{found.names} has the highest mean{of} on {where}, {mean} % ({found.cell.n})"
    else:
        verb = "are tied, each with" if several else "has"
        text = f"{found.names} {verb} the highest mean in {found.leads} of {found.columns} columns"
    return text + ("; it is of runs that learned nothing." if found.unlearned else ".")
