"""``fleetprompt doctor``: what is well, what is not, and how to mend it."""

from dataclasses import asdict
from typing import Annotated

import typer
from pydantic import ValidationError

from fleetprompt.cli.support import print_json
from fleetprompt.runtime.checks import Finding, Verdict, examine
from fleetprompt.settings import Settings

app = typer.Typer(add_completion=False)
_SIGNS = {Verdict.OK: ("✓", "green"), Verdict.NOTE: ("–", "yellow"), Verdict.BAD: ("✗", "red")}


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="JSON for programs.")] = False,
) -> None:
    """Check this installation and say how to mend it.

    Changes nothing. Exit code 0 if all is well (notes included), 1 if something is wrong.
    """
    try:
        findings = examine(Settings())
    except ValidationError as error:
        findings = [
            Finding(
                "settings",
                Verdict.BAD,
                f"FLEETPROMPT_{'_'.join(map(str, problem['loc'])).upper()}: {problem['msg']}",
                "correct or unset this environment variable",
            )
            for problem in error.errors(include_input=False, include_url=False)
        ]
    well = all(finding.verdict is not Verdict.BAD for finding in findings)
    if as_json:
        print_json({"ok": well, "checks": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            sign, colour = _SIGNS[finding.verdict]
            typer.secho(f"{sign} {finding.check:<12} ", fg=colour, nl=False)
            typer.echo(finding.message)
            if finding.remedy:
                typer.echo(f"{'':<15}→ {finding.remedy}")
    raise typer.Exit(0 if well else 1)
