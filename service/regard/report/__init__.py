"""A page on which a person looks at attention: answers in, one self-contained HTML file out.

    from regard.client import AttentionOptions, Client
    from regard.report import write_report

    with Client("localhost:50051") as client:
        answer = client.translate("The house is old.", attention=AttentionOptions(granularity="word"))
    write_report("attention.html", [("The house is old.", answer)])

The file needs no network and no server: open it from wherever it lies. Notebooks draw an answer by
itself, and with `Display(image, answer)` over its image.
"""

from regard.report.document import MAX_ANSWERS, Answer, Input, ReportError
from regard.report.notebook import Display, draw_answer
from regard.report.page import render, write_report

__all__ = ["MAX_ANSWERS", "Answer", "Display", "Input", "ReportError", "draw_answer", "render", "write_report"]
