"""A completion script for your shell.

examples:
  source <(kprobes completion bash)
  kprobes completion zsh > ~/.zfunc/_kprobes
  kprobes completion fish | source
Commands, options and their values are completed; after a command that takes a probe, functions of this machine's
kernel are.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

from kprobes.cli.options import make_parser
from kprobes.frozen import dataclass

if TYPE_CHECKING:
    from kprobes.cli.parser import Namespace, Parser

# The usual values of --arch, which has more spellings, so that its parser knows no choices.
ARCHES: tuple[str, ...] = ("x86_64", "arm64")
ARCHES_OF_CHECK: tuple[str, ...] = ("x86_64", "aarch64", "i386")

# Bash splits `--format=json` into three words at the `=`.
BASH = """\
_kprobes() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" command="${{COMP_WORDS[1]}}" before="" options="" values=""
    local valued="" first="" at=2
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands}" -- "$word"))
        return
    fi
    before="${{COMP_WORDS[COMP_CWORD-1]}}"
    if [ "$word" = "=" ]; then
        word=""
    elif [ "$before" = "=" ]; then
        before="${{COMP_WORDS[COMP_CWORD-2]}}"
    fi
    case "$command" in
{options}
    esac
    case "$command $before" in
{values}
    esac
    case "$command" in
{valued}
    esac
    while [ "$at" -lt "$COMP_CWORD" ] && [ -z "$first" ]; do
        case "${{COMP_WORDS[at]}} ${{COMP_WORDS[at+1]}}" in
            -*" =") at=$((at+2)) ;;
            -*) case " $valued " in *" ${{COMP_WORDS[at]}} "*) at=$((at+1)) ;; esac ;;
            *) first="${{COMP_WORDS[at]}}" ;;
        esac
        at=$((at+1))
    done
    if [ -z "$values$first" ] && [ "$at" -eq "$COMP_CWORD" ]; then
        case "$command" in
{actions}
        esac
    fi
    case "$word" in
        -*) COMPREPLY=($(compgen -W "$options" -- "$word")); return ;;
    esac
    if [ -n "$values" ]; then
        COMPREPLY=($(compgen -W "$values" -- "$word"))
        return
    fi
    case "$word" in
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

    words = {name: _words(name) for name in COMMANDS}
    if arguments.shell == "fish":
        sys.stdout.write(_fish(words))
        return 0
    sys.stdout.write((ZSH if arguments.shell == "zsh" else "") + _bash(words))
    return 0


@dataclass(frozen=True, slots=True)
class Words:
    """What can stand behind a command: its *options*, which of them take the next word (*valued*), the *values* of
    those that have choices, and the *actions* that its first word is one of, if it is."""

    options: tuple[str, ...]
    valued: tuple[str, ...]
    values: dict[str, tuple[str, ...]]
    actions: tuple[str, ...]


def _words(name: str) -> Words:
    from kprobes.cli.main import COMMANDS

    module, summary = COMMANDS[name]
    parser = make_parser(name, summary, "")
    import_module(f"kprobes.cli.{module}").add_arguments(parser)
    options = tuple(sorted(word for word in parser.option_names() if word.startswith("--")))
    # `--vm` takes its kernel behind `=` only
    valued = [one for one in parser.arguments if one.is_option and one.action != "store_true" and one.dest != "vm"]
    names = tuple(name for one in valued for name in one.names)
    values = {"--arch": ARCHES_OF_CHECK if name == "check" else ARCHES} if "--arch" in options else {}
    for argument in parser.arguments:
        if argument.is_option and "choices" in argument.details:
            values |= dict.fromkeys(argument.names, tuple(argument.details["choices"]))
    first = next((argument.details for argument in parser.arguments if not argument.is_option), {})
    return Words(options, names, values, tuple(first.get("choices", ())))


def _bash(words: dict[str, Words]) -> str:
    values = {f"{name} {option}": said for name, one in words.items() for option, said in one.values.items()}
    return BASH.format(
        commands=" ".join(words),
        options=_cases({name: one.options for name, one in words.items()}, "options"),
        values=_cases(values, "values"),
        valued=_cases({name: one.valued for name, one in words.items() if one.actions}, "valued"),
        actions=_cases({name: one.actions for name, one in words.items() if one.actions}, "values"),
    )


def _cases(found: dict[str, tuple[str, ...]], variable: str) -> str:
    return "\n".join(f'        "{key}") {variable}="{" ".join(words)}" ;;' for key, words in found.items())


def _fish(words: dict[str, Words]) -> str:
    from kprobes.cli.main import COMMANDS

    lines = [
        f"complete -c kprobes -n __fish_use_subcommand -f -a {name} -d '{summary.replace(chr(39), '')}'"
        for name, (_, summary) in COMMANDS.items()
    ]
    for name, one in words.items():
        behind = f"complete -c kprobes -n '__fish_seen_subcommand_from {name}"
        for option in one.options:
            values = f" -x -a '{' '.join(one.values[option])}'" if option in one.values else ""
            lines.append(f"{behind}' -l {option.removeprefix('--')}{values}")
        if one.actions:
            actions = " ".join(one.actions)
            lines.append(f"{behind}; and not __fish_seen_subcommand_from {actions}' -f -a '{actions}'")
    return "\n".join(lines) + "\n"
