"""Train, measure and ship every model of `mini`; see README.md here."""
