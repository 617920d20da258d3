"""Answers about definitions that write nothing: preview, explain, plan, history, CSV, cases.

What belongs here: questions that are more than one query. What does not: how queries are compiled
(`query`), what a refresh stores (`refresh`).
"""
