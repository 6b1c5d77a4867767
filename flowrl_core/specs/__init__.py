"""Pydantic models of flow parameters, by family: they make the forms of the Prefect UI."""
