"""A page on which a person looks at attention: answers in, one self-contained HTML file out.

    from regard.client import AttentionOptions, Client
    from regard.report import write_report

    with Client("localhost:50051") as client:
        answer = client.translate("The house is old.", attention=AttentionOptions(granularity="word"))
    write_report("attention.html", [("The house is old.", answer)])

The file needs no network and no server: open it from wherever it lies. Notebooks draw an answer by
itself, and with `Display(image, answer)` over its image.
"""

from regard.report.document import MAX_ANSWERS, Answer, Input, ReportError, weights_of
from regard.report.notebook import Display, draw_answer
from regard.report.page import render, write_report
from regard.viewer import MOST_WEIGHTS

__all__ = [
    "MAX_ANSWERS",
    "MOST_WEIGHTS",
    "Answer",
    "Display",
    "Input",
    "ReportError",
    "draw_answer",
    "render",
    "weights_of",
    "write_report",
]
