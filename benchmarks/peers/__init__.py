"""Tierline beside its peers: what a call costs, what is imported, what is installed.

Each peer lives in an environment of its own (`environments`), with exact versions. A process in each (`worker`) runs
the columns of one module of `columns`; `conductor` tells them by turns to run a block of calls. The plain SDK is a
column in every one of them, so that each ratio is of two columns in one process. `figures` is what came of it, and
`page` writes it down.
"""
