"""How shells ask for completions and take them, where click does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from click.shell_completion import BashComplete, ZshComplete, add_completion_class

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class Bash(BashComplete):
    """bash breaks words at ``=`` and has that a word of its own."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and that one."""
        words, incomplete = super().get_completion_args()
        return [word for word in words if word != "="], incomplete


class Zsh(ZshComplete):
    """zsh puts an offer in the place of the whole word, ``--option=`` included."""

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem[str]]:
        """The offers, each a whole word."""
        option, equals, _ = incomplete.partition("=")
        found = super().get_completions(args, incomplete)
        if equals and option.startswith("--"):
            for item in found:
                item.value = f"{option}={item.value}"
        return found


SHELLS = {"bash": Bash, "zsh": Zsh}


def register() -> None:
    """Have click use them."""
    for name, shell in SHELLS.items():
        add_completion_class(shell, name)
