"""A completion script for your shell.

examples:
  source <(kprobes completion bash)
  kprobes completion zsh > ~/.zfunc/_kprobes
  kprobes completion fish | source
Commands and options are completed; after a command that takes a probe, functions of this machine's kernel are.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from kprobes.cli.options import make_parser

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser

BASH = """\
_kprobes() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}}"
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    case "$command" in
{options}
    esac
    case "$word" in
        -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
        ???*)
            case "$command" in
                trace|count|hist|latency|info|list)
                    COMPREPLY=($(compgen -W "$(kprobes list "$word*" 2>/dev/null | head -n 200)" -- "$word")) ;;
                *) COMPREPLY=($(compgen -f -- "$word")) ;;
            esac ;;
        *) COMPREPLY=($(compgen -f -- "$word")) ;;
    esac
}}
complete -F _kprobes kprobes
"""
ZSH = "#compdef kprobes\nautoload -U bashcompinit && bashcompinit\n"


def add_arguments(parser: Parser) -> None:
    """Describe the options."""
    parser.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell to complete in")


def run(arguments: Namespace) -> int:
    """Write the script."""
    from kprobes.cli.main import COMMANDS

    options = {name: _options(name) for name in COMMANDS}
    if arguments.shell == "fish":
        sys.stdout.write(_fish(options))
        return 0
    cases = "\n".join(f'        {name}) local options="{" ".join(words)}" ;;' for name, words in options.items())
    script = BASH.format(commands=" ".join(COMMANDS), options=cases)
    sys.stdout.write((ZSH if arguments.shell == "zsh" else "") + script)
    return 0


def _options(name: str) -> list[str]:
    from kprobes.cli.main import COMMANDS

    module, summary = COMMANDS[name]
    parser = make_parser(name, summary, "")
    import_module(f"kprobes.cli.{module}").add_arguments(parser)
    return sorted(word for word in parser.option_names() if word.startswith("--"))


def _fish(options: dict[str, list[str]]) -> str:
    from kprobes.cli.main import COMMANDS

    lines = [
        f"complete -c kprobes -n __fish_use_subcommand -f -a {name} -d '{summary.replace(chr(39), '')}'"
        for name, (_, summary) in COMMANDS.items()
    ]
    lines += [
        f"complete -c kprobes -n '__fish_seen_subcommand_from {name}' -l {word.removeprefix('--')}"
        for name, words in options.items()
        for word in words
    ]
    return "\n".join(lines) + "\n"
