"""``poller completion``: what makes a shell complete commands, options, and names out of the configuration."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import click
from click.shell_completion import CompletionItem, get_completion_class

from poller.commands.command_line import examples, reports_errors

DEFAULT = "accounts.yaml"


@click.command(
    epilog=examples(
        'eval "$(poller completion bash)"                                  # now; or in ~/.bashrc',
        "poller completion bash > /etc/bash_completion.d/poller           # for everybody",
        'eval "$(poller completion zsh)"                                   # in ~/.zshrc',
        "poller completion fish > ~/.config/fish/completions/poller.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@reports_errors
def completion(shell: str) -> None:
    """Print the script that makes a shell complete poller's commands, options and names.

    Names of accounts and sinks come from the configuration: the one given with -c, or else POLLER_CONFIG, or
    else accounts.yaml. If that cannot be read, they are not completed, and nothing is said.
    """
    main = click.get_current_context().find_root().command
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101  # click knows the three
    one = made(main, {}, "poller", "_POLLER_COMPLETE")
    # Not by source(), which would ask the shell for its version: it need not be installed here.
    click.echo(one.source_template % one.source_vars())


def complete_accounts(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a configured account."""
    from poller.commands.names import account_names

    return _items(account_names(_configuration(context)), begun)


def complete_sinks(context: click.Context, _: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete the name of a configured sink."""
    from poller.commands.names import sink_names

    return _items(sink_names(_configuration(context)), begun)


def complete_kinds(_: click.Context, __: click.Parameter, begun: str) -> list[CompletionItem]:
    """Complete a kind of sink that is installed."""
    from importlib.metadata import entry_points

    return _items([*sorted(point.name for point in entry_points(group="poller.sinks")), "sql"], begun)


def _configuration(context: click.Context) -> Path:
    given = context.params.get("path")
    return Path(given or os.environ.get("POLLER_CONFIG") or DEFAULT)


def _items(names: Iterable[str], begun: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in names if name.startswith(begun)]
