"""Names the method with the highest mean on test, or the several that are tied because they print alike."""

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

    leads: number of columns in which each of them is highest, alone or tied. columns, method_count: numbers of columns
    and methods with a result. cell: of the first method, meaningful if there is only one column. unlearned: True if all
    runs behind these methods' means learned nothing.
    """

    methods: tuple[str, ...]
    leads: int
    columns: int
    method_count: int
    cell: Cell
    unlearned: bool

    @property
    def names(self) -> str:
        """Returns the methods as a list in words: "fzoo, lozo and mezo"."""
        *first_names, last_name = self.methods
        return f"{', '.join(first_names)} and {last_name}" if first_names else last_name


def leader(cells: Sequence[Cell]) -> Leader | None:
    """Returns the leader among the cells with a result; None without one."""
    ended = [cell for cell in cells if cell.mean is not None]
    columns = sorted({column_of(cell) for cell in ended})
    highest_cells: list[Cell] = []
    for column in columns:
        cells_of_column = [cell for cell in ended if column_of(cell) == column]
        highest = percent(max(cell.mean or 0.0 for cell in cells_of_column))
        highest_cells += [cell for cell in cells_of_column if percent(cell.mean) == highest]
    if not highest_cells:
        return None
    leads = Counter(cell.method for cell in highest_cells)
    most_leads = max(leads.values())
    methods = tuple(sorted(method for method, count in leads.items() if count == most_leads))
    behind = [cell for cell in highest_cells if cell.method in methods]
    return Leader(
        methods, most_leads, len(columns), len({cell.method for cell in ended}), behind[0],
        all(len(cell.learned_nothing) == cell.n for cell in behind),
    )  # fmt: skip


def headlines(comparison: Comparison) -> list[str]:
    """Returns a sentence for the methods of forward passes only, and one for those of first order."""
    kinds = {
        "Forward passes only": [cell for cell in comparison.cells if not first_order(cell)],
        "First order": [cell for cell in comparison.cells if first_order(cell)],
    }
    leaders = {kind: leader(cells) for kind, cells in kinds.items()}
    return [f"{kind}: {sentence(best)}" for kind, best in leaders.items() if best is not None]


def sentence(leader: Leader) -> str:
    """Returns the headline: "fzoo and mezo, 46.0 % each, are tied for the highest mean of 2 on sst2 · opt-125m"."""
    tied = len(leader.methods) > 1
    if leader.columns == 1:
        among = f" of {leader.method_count}" if leader.method_count > 1 else ""
        place = column_label(column_of(leader.cell))
        if tied:
            mean = percent(leader.cell.mean)
            text = f"{leader.names}, {mean} % each, are tied for the highest mean{among} on {place}"
        else:
            mean = spread(leader.cell.mean, leader.cell.deviation)
            text = f"{leader.names} has the highest mean{among} on {place}, {mean} % ({leader.cell.n})"
    else:
        verb = "are tied, each with" if tied else "has"
        text = f"{leader.names} {verb} the highest mean in {leader.leads} of {leader.columns} columns"
    return text + ("; it is of runs that learned nothing." if leader.unlearned else ".")
