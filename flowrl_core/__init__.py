"""The domain of FlowRL: importable and testable with neither a Prefect server nor a GPU."""
