#!/usr/bin/env bash
# An unquoted expansion: shellcheck must say so (lint.cmake).
rm $1
