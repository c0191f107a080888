"""What ``poller doctor`` shows: sections of findings, then the configuration; or JSON."""

from __future__ import annotations

from dataclasses import asdict
from itertools import groupby

import click
import orjson
import yaml
from rich.text import Text

from poller.commands.doctor_daemon import Diagnosis
from poller.commands.drawing import console, text
from poller.commands.findings import worst_level

MARKS = {"ok": ("  ", ""), "warning": ("! ", "yellow"), "error": ("✗ ", "red")}


def show_diagnosis(diagnosis: Diagnosis, *, as_json: bool) -> None:
    """Show everything that was found."""
    if as_json:
        document = {
            "at": diagnosis.at,
            "worst": worst_level(diagnosis.findings),
            "findings": [asdict(finding) for finding in diagnosis.findings],
            "configuration": diagnosis.configuration,
        }
        click.echo(orjson.dumps(document, option=orjson.OPT_INDENT_2))
        return
    screen = console()
    screen.print(f"poller doctor, {diagnosis.at[:19]}Z", style="bold")
    for section, found in groupby(diagnosis.findings, key=lambda finding: finding.section):
        listed = list(found)
        cells = min(28, max(len(finding.name) for finding in listed))
        screen.print(f"\n{section}", style="bold")
        for finding in listed:
            mark, style = MARKS[finding.level]
            line = Text(mark, style=style).append_text(text(f"{finding.name:{cells}}  {finding.text}", style))
            if finding.remedy:
                line.append_text(text(f"; {finding.remedy}"))
            screen.print(line, soft_wrap=True)
    for file, document in diagnosis.configuration.items():
        screen.print(Text("\n").append_text(text(file, "bold")))
        written = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=1000)
        for one in written.splitlines():
            screen.print(text(one), soft_wrap=True)
    counts = {level: sum(finding.level == level for finding in diagnosis.findings) for level in MARKS}
    said = ", ".join(
        f"{counts[level]} {level}{'' if counts[level] == 1 else 's'}" for level in ("error", "warning")
    )
    screen.print(f"\n{said}", style="bold")
