"""The type checker of the suite: jaxtyping's shapes and all other annotations of taming_core, at every call."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float
