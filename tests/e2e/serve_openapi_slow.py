"""Thousands of requests that schemathesis makes from the OpenAPI file: every boundary, then whatever it finds."""

from _openapi import check_openapi

if __name__ == "__main__":
    check_openapi("coverage,fuzzing", 300)
