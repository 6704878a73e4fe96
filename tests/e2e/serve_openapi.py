"""A few requests of each kind that schemathesis makes from the OpenAPI file; more: serve_openapi_slow.py."""

from _openapi import check_openapi

if __name__ == "__main__":
    check_openapi("fuzzing", 10)
