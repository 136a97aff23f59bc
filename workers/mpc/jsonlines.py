"""Logs as one JSON object a line, for nodes and, where it is asked for, the site."""

from __future__ import annotations

import json
import logging

_PLAIN = set(logging.LogRecord("", 0, "", 0, "", (), None).__dict__) | {"message", "asctime"}


class JsonLines(logging.Formatter):
    """Time, level, logger, message and the record's own fields; of an exception its type and where
    it was raised: texts and locals might hold what was being computed.
    """

    def format(self, record: logging.LogRecord) -> str:
        extra = {k: v for k, v in record.__dict__.items() if k not in _PLAIN}
        content = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **extra,
        }
        if record.exc_info and record.exc_info[0] is not None:
            kind, _, trace = record.exc_info
            while trace is not None and trace.tb_next is not None:
                trace = trace.tb_next
            place = trace and f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
            content |= {"error": kind.__name__, "where": place}
        return json.dumps(content, default=str)
