"""The page itself: Gradio's components, and which method of the desk answers which of them."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from busi_lab.app.batch import COLUMNS
from busi_lab.app.desk import UNKNOWN, Desk, as_complaint
from busi_lab.app.markup import EMPTY, HEAD, complaint_markup
from busi_lab.app.uploads import Upload
from busi_lab.errors import UserError

CSS = Path(__file__).with_name("page.css")
SCRIPT = Path(__file__).with_name("drawing.js")
WAITING = 24
"""Requests that may wait; the next one is told to try again."""
VISITORS = 64
"""Visitors whose scan is remembered, about a megabyte each; of more, those who came first choose theirs again."""
_CHOOSE_FIRST = "no scan is chosen; choose one above"


def theme() -> Any:
    """Fonts of the system alone: nothing is fetched."""
    return gr.themes.Default(
        font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"), primary_hue="sky"
    )


def build_page(desk: Desk, phantoms: dict[str, Path]) -> Any:
    """The page.

    Args:
        desk: that answers.
        phantoms: example scans by their names.

    Returns:
        Blocks of Gradio, with a queue that lets one request at a time into the models.
    """
    with gr.Blocks(title="busi-lab", analytics_enabled=False, delete_cache=(60, 900), fill_width=True) as page:
        gr.HTML(HEAD)
        upload = gr.State(None)
        with gr.Tabs():
            with gr.Tab("Scan"):
                frame, spacing = _scan_tab(desk, upload, phantoms)
            if desk.corrections is not None:
                with gr.Tab("Correct"):
                    _correction_tab(desk, upload, frame, spacing)
            with gr.Tab("Many scans"):
                _batch_tab(desk)
            with gr.Tab("About the model" if len(desk.models) == 1 else "About the models"):
                gr.HTML(desk.cards())

        def leave(request: gr.Request) -> None:
            desk.leave(_visitor(request))

        def arrive(request: gr.Request) -> None:
            desk.arrive(_visitor(request))

        page.load(arrive, queue=False, api_name=False)
        page.unload(leave)
    page.state_session_capacity = VISITORS  # mounting has no argument for it
    page.queue(max_size=WAITING, default_concurrency_limit=1)
    return page


def _on(
    listen: Callable[..., Any], answer: Callable[..., Any], inputs: Any, outputs: Any, name: str, js: str | None = None
) -> Any:
    """All events share one place in the queue, and with it the models."""
    return listen(answer, inputs, outputs, concurrency_id="models", concurrency_limit=1, api_name=name, js=js)


def _scan_tab(desk: Desk, upload: Any, phantoms: dict[str, Path]) -> tuple[Any, Any]:
    with gr.Row():
        with gr.Column(scale=1, min_width=280):
            file = gr.File(label="Scan: PNG, JPEG, BMP, TIFF or DICOM", file_count="single", height=130)
            with gr.Row():
                buttons = {name: gr.Button(f"Phantom: {name}", size="sm", min_width=90) for name in phantoms}
            frame = gr.Slider(1, 2, value=1, step=1, label="Frame", visible=False)
            opacity = gr.Slider(0, 100, value=90, step=5, label="Outline, % opaque")
            heat = gr.Slider(0, 100, value=0, step=5, label="Heat map (Grad-CAM), % opaque")
            spacing = gr.Textbox(
                label="Pixel spacing in mm, where the file does not tell", placeholder="0.1 or 0.1x0.12"
            )
            make = gr.Button("Make JSON, masks and PDF")
            papers = gr.File(label="Files", file_count="multiple", visible=False, interactive=False)
        with gr.Column(scale=3, min_width=320):
            shown = gr.HTML(EMPTY, elem_id="busi-findings")
    for slider, variable in ((opacity, "--busi-outline"), (heat, "--busi-heat")):
        script = f"value => {{ document.documentElement.style.setProperty('{variable}', value / 100) }}"
        slider.input(None, slider, None, js=script)
        slider.change(None, slider, None, js=script)

    def no_files() -> Any:
        return gr.update(value=None, visible=False)

    def choose(path: str, mm: str, request: gr.Request) -> tuple[Any, ...]:
        return take(Path(path), mm, request)

    def take(path: Path, mm: str, request: gr.Request) -> tuple[Any, ...]:
        try:
            found = desk.choose(_visitor(request), path, path.name)
        except UserError as error:
            return None, gr.update(visible=False), as_complaint(error), no_files()
        slider = gr.update(visible=found.several, maximum=max(2, found.frames), value=1)
        return found, slider, _look(desk, found, 1, mm), no_files()

    taken = [upload, frame, shown, papers]
    _on(file.upload, choose, [file, spacing], taken, "choose")
    file.clear(lambda: (None, gr.update(visible=False), EMPTY, no_files()), None, taken, queue=False, api_name=False)
    for name, path in phantoms.items():

        def try_phantom(mm: str, request: gr.Request, path: Path = path) -> tuple[Any, ...]:
            return *take(path, mm, request), None

        _on(buttons[name].click, try_phantom, [spacing], [*taken, file], f"phantom_{name}")
    for listen, name in ((frame.release, "frame"), (spacing.submit, "spacing"), (spacing.blur, "spacing_left")):
        _on(listen, partial(_look, desk), [upload, frame, spacing], shown, name)

    def write(found: Upload | None, number: float, mm: str, request: gr.Request) -> tuple[Any, Any]:
        if found is None:
            return gr.update(visible=False), complaint_markup(_CHOOSE_FIRST)
        try:
            paths = desk.papers(_visitor(request), found, int(number) - 1, mm)
        except UserError as error:
            return gr.update(visible=False), as_complaint(error)
        return gr.update(value=[str(path) for path in paths], visible=True), gr.skip()

    _on(make.click, write, [upload, frame, spacing], [papers, shown], "write")
    return frame, spacing


def _correction_tab(desk: Desk, upload: Any, frame: Any, spacing: Any) -> None:
    gr.HTML(
        '<p class="busi-small">Take the scan, mend its mask, choose its class, save. The picture, mask and class '
        "are kept; nothing is kept before you save.</p>"
    )
    begin = gr.Button("Take the scan with the mask of the model")
    board = gr.HTML()
    of = gr.State(None)  # the upload and the frame on the board, whatever is chosen meanwhile
    drawn = gr.Textbox(visible="hidden")
    classes = desk.corrections.classes.names if desk.corrections is not None else ()
    label = gr.Radio([*classes, UNKNOWN], value=UNKNOWN, label="Class")
    save = gr.Button("Save", variant="primary")
    said = gr.HTML()

    def take(found: Upload | None, number: float) -> tuple[Any, ...]:
        if found is None:
            return gr.skip(), gr.skip(), gr.skip(), complaint_markup(_CHOOSE_FIRST)
        try:
            return *desk.drawing(found, int(number) - 1), (found, int(number) - 1), ""
        except UserError as error:
            return gr.skip(), gr.skip(), gr.skip(), as_complaint(error)

    def keep(taken: tuple[Upload, int] | None, mm: str, drawing: str, chosen: str) -> str:
        if taken is None:
            return complaint_markup("nothing to save; take a scan first")
        try:
            return desk.save(*taken, mm, drawing, chosen)
        except UserError as error:
            return as_complaint(error)

    began = _on(begin.click, take, [upload, frame], [board, label, of, said], "take")
    began.then(None, js="() => window.busiDrawing.start()")
    read = "(taken, mm, drawing, chosen) => [taken, mm, window.busiDrawing.value(), chosen]"
    _on(save.click, keep, [of, spacing, drawn, label], said, "save", read)


def _batch_tab(desk: Desk) -> None:
    files = gr.File(label="Scans", file_count="multiple", height=160)
    spacing = gr.Textbox(label="Pixel spacing in mm, where files do not tell", placeholder="0.1 or 0.1x0.12")
    start = gr.Button("Apply to all")
    said = gr.HTML()
    table = gr.Dataframe(headers=list(COLUMNS), visible=False, interactive=False, wrap=True)
    archive = gr.File(label="Table, JSON and masks", visible=False, interactive=False)

    def run(paths: list[str] | None, mm: str, request: gr.Request, progress: Any = gr.Progress()) -> tuple[Any, ...]:  # noqa: B008
        hidden = gr.update(visible=False)
        if not paths:
            return complaint_markup("no file is chosen; choose some above"), hidden, hidden
        sent = [(Path(path), Path(path).name) for path in paths]
        try:
            result = desk.batch(_visitor(request), sent, mm, progress)
        except UserError as error:
            return as_complaint(error), hidden, hidden
        return "", gr.update(value=result.rows, visible=True), gr.update(value=str(result.archive), visible=True)

    _on(start.click, run, [files, spacing], [said, table, archive], "many")


def _look(desk: Desk, found: Upload | None, number: float, mm: str) -> str:
    if found is None:
        return EMPTY
    try:
        return desk.look(found, int(number) - 1, mm)
    except UserError as error:
        return as_complaint(error)


def _visitor(request: gr.Request) -> str:
    return str(request.session_hash)
