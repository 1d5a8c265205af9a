"""The tables of docs/reference/networks.md: a line for each network, and the numbers that the benchmark counts."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from nnunet_echo.networks import NETWORKS

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    for name in ("networks", "network_table"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    import network_table

    return network_table


def lines_of(table: ModuleType) -> dict[str, list[list[str]]]:
    """The cells of the lines that begin with a name, all tables together."""
    page = table.PAGE.read_text()
    written = page[page.index(table.BEGIN) : page.index(table.END)]
    rows: dict[str, list[list[str]]] = {}
    for line in written.splitlines():
        if line.startswith("| "):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows.setdefault(re.split(r",| \(", cells[0])[0].strip("`"), []).append(cells)
    return rows


def test_every_network_is_in_all_of_its_tables_and_no_cell_is_empty(table: ModuleType) -> None:
    rows = lines_of(table)
    assert rows.keys() == {"network", table.PLAIN, table.RESIDUAL, *NETWORKS}
    for name, row in NETWORKS.items():
        assert len(rows[name]) == len(row.dims) + 1, name
        assert row.follows and row.code and row.licence, name
    assert all(cell for cells in rows.values() for line in cells for cell in line)
    for headings in rows["network"]:  # as many cells as headings
        assert any(len(cells) == len(headings) for line in rows.values() for cells in line)


def test_what_stands_there_of_code_and_training_is_what_the_benchmark_writes(table: ModuleType) -> None:
    assert table.facts_table() in table.PAGE.read_text()


@pytest.mark.slow
def test_counts_are_those_of_a_network(table: ModuleType) -> None:
    ours = table.count(table.case("segresnet", "256 x 256"))
    assert lines_of(table)["segresnet"][0][1:3] == [f"{ours.parameters / 1e6:.1f}", f"{ours.flops / 1e9:.1f}"]


@pytest.mark.slow
@pytest.mark.parametrize("name", ["no_mamba", "lkm_unet", "unetr"])
def test_counts_and_ratios_are_those_of_the_networks(table: ModuleType, name: str) -> None:
    cells = lines_of(table)[name][0]
    for first, plan in enumerate(table.PLANS):
        ours, plain = (table.count(table.case(network, plan)) for network in (name, table.PLAIN))
        expected = [f"{ours.parameters / 1e6:.1f}", f"{ours.flops / 1e9:.1f}", f"{ours.flops / plain.flops:.2f}"]
        expected.append(f"{ours.kept_gib / plain.kept_gib:.2f}")
        assert cells[1 + 4 * first : 5 + 4 * first] == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", ["umamba_bot", "nnformer"])
def test_counts_of_volumes_are_those_of_the_networks(table: ModuleType, name: str) -> None:
    (plan,) = table.VOLUME
    counts = {plan: {network: table.count(table.case(network, plan)) for network in (table.PLAIN, name)}}
    assert all(line in table.PAGE.read_text() for line in table.costs_table(counts, 0).splitlines())


def test_a_page_without_its_marks_is_refused(table: ModuleType) -> None:
    page = f"before {table.BEGIN}\nold\n{table.END} after"
    assert table.replaced(page, "new\n") == f"before {table.BEGIN}\n\nnew\n\n{table.END} after"
    with pytest.raises(ValueError, match="expected <!-- written by"):
        table.replaced("no marks", "new")
