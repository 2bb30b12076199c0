// A mask is drawn on a canvas over the scan: brush, eraser, an outline that is filled, undo.
window.busiDrawing = {
  start() {
    const root = document.querySelector(".busi-drawing");
    if (!root || root.dataset.started) return;
    root.dataset.started = "yes";
    const canvas = root.querySelector("canvas");
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    const size = root.querySelector("input[type=range]");
    const steps = [];
    let tool = "brush";
    let points = [];
    const mask = root.querySelector(".busi-mask");
    mask.decode().then(() => pen.drawImage(mask, 0, 0));
    const choose = (name) => {
      tool = name;
      for (const button of root.querySelectorAll("[data-tool]")) button.setAttribute("aria-pressed", button.dataset.tool === name);
    };
    const remember = () => {
      steps.push(pen.getImageData(0, 0, canvas.width, canvas.height));
      if (steps.length > 20) steps.shift();
    };
    const act = {
      undo: () => steps.length && pen.putImageData(steps.pop(), 0, 0),
      clear: () => { remember(); pen.clearRect(0, 0, canvas.width, canvas.height); },
    };
    const stroke = () => {
      pen.globalCompositeOperation = tool === "eraser" ? "destination-out" : "source-over";
      pen.strokeStyle = pen.fillStyle = "rgb(86, 180, 233)";
      pen.lineCap = pen.lineJoin = "round";
      pen.lineWidth = tool === "fill" ? 2 : Number(size.value);
      pen.beginPath();
      points.forEach(([x, y]) => pen.lineTo(x, y));
      if (points.length === 1) pen.lineTo(points[0][0] + 0.01, points[0][1]);
    };
    const place = (event) => {
      const box = canvas.getBoundingClientRect();
      return [((event.clientX - box.left) * canvas.width) / box.width, ((event.clientY - box.top) * canvas.height) / box.height];
    };
    canvas.onpointerdown = (event) => {
      canvas.setPointerCapture(event.pointerId);
      remember();
      points = [place(event)];
      stroke();
      pen.stroke();
    };
    canvas.onpointermove = (event) => {
      if (!points.length) return;
      points.push(place(event));
      stroke();
      pen.stroke();
    };
    canvas.onpointerup = canvas.onpointercancel = () => {
      if (tool === "fill" && points.length > 2) {
        pen.putImageData(steps[steps.length - 1], 0, 0);
        stroke();
        pen.fill();
      }
      points = [];
    };
    root.onclick = (event) => {
      const { tool: name, act: deed } = event.target.dataset;
      if (name) choose(name);
      if (deed) act[deed]();
    };
    root.onkeydown = (event) => {
      if ((event.ctrlKey || event.metaKey) && event.key === "z") act.undo();
    };
    choose("brush");
  },
  value() {
    const canvas = document.querySelector(".busi-drawing canvas");
    return canvas ? canvas.toDataURL("image/png") : "";
  },
};
