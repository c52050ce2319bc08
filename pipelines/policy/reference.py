"""The reference of gates in docs/policies.md, made from the shipped policies: `python -m pipelines.policy.reference` renews it.

What belongs here: setting out what the YAML files say. A test holds the page against this.
"""

import sys
from pathlib import Path

from pipelines.policy.loading import load_policy

ORDER = ("demo", "pretrain-256", "pretrain-768", "finetune")
BEGIN, END = "<!-- gates: begin -->", "<!-- gates: end -->"


def gate_reference() -> str:
    """A Markdown table: every gate, what it reads, its threshold in each policy, and what a failed measurement means."""
    policies = [load_policy(name) for name in ORDER]
    rows = [["gate", "column", *ORDER, "if not measured", "about"], ["---"] * (len(ORDER) + 4)]
    names = list(dict.fromkeys(gate.name for policy in policies for gate in policy.gates))
    for name in names:
        gates = [next((gate for gate in policy.gates if gate.name == name), None) for policy in policies]
        first = next(gate for gate in gates if gate is not None)
        bounds = [f"`{gate.threshold}`" if gate and gate.is_enabled else "-" for gate in gates]
        rows.append([f"`{name}`", f"`{first.column}`", *bounds, first.on_failure, first.about])
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)


def renewed(page: str) -> str:
    """`page` with the part between its two marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{gate_reference()}\n{END}{after}"


if __name__ == "__main__":
    path = Path(sys.argv[1] if len(sys.argv) > 1 else "docs/policies.md")
    path.write_text(renewed(path.read_text(encoding="utf-8")), encoding="utf-8")
