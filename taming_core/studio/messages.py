"""Errors of the user as messages on the page, in the same two sentences that a command prints."""

from collections.abc import Generator
from contextlib import contextmanager
from html import escape

import gradio as gr

from taming_core.errors import TamingError, explain_os_error


@contextmanager
def errors_on_page() -> Generator[None]:
    """Show an error that the user can fix on the page; around the body of a handler, or as its decorator.

    The page renders HTML in messages, and they hold names of files: these are escaped.
    """
    try:
        yield
    except TamingError as error:
        raise message(str(error)) from error
    except OSError as error:
        if error.errno is None:  # not of the operating system, but of a library
            raise
        raise message(explain_os_error(error)) from error


def message(text: str) -> gr.Error:
    """An error message that stays until it is closed, with nothing on the terminal."""
    return gr.Error(escape(text), duration=None, title="", print_exception=False)
