// Draws the figures of the report, in the colours of the reader's light or dark scheme, and turns both attractors together.
(function () {
  "use strict";
  const text = document.getElementById("figures").textContent;
  const scheme = window.matchMedia("(prefers-color-scheme: dark)");
  // plotly.js would offer to send the chart to its makers' server; a report stays where it is.
  const config = {
    displaylogo: false, responsive: true, showSendToCloud: false, plotlyServerURL: "", typesetMath: false,
    modeBarButtonsToRemove: ["sendChartToCloud", "lasso2d", "select2d", "resetCameraLastSave3d"],
    toImageButtonOptions: { format: "png", scale: 2 }
  };
  const colors = {
    light: { true: "#0072b2", made: "#d55e00", kept: "#d55e00", other: "#a9b1ba", mark: "#3a424b", reference: "#8a939d",
             ink: "#1c2026", soft: "#59626d", grid: "#e9ecef", line: "#c3c9d0", paper: "#ffffff" },
    dark: { true: "#5cb3e6", made: "#f2954d", kept: "#f2954d", other: "#5d6773", mark: "#cfd6dd", reference: "#7d8894",
            ink: "#e4e7eb", soft: "#9aa5b1", grid: "#262b32", line: "#444c56", paper: "#1c2026" }
  };

  function hasWebgl() {
    try {
      const canvas = document.createElement("canvas");
      return Boolean(canvas.getContext("webgl2") || canvas.getContext("webgl"));
    } catch (error) {
      return false;
    }
  }

  function paint(figure, color) {
    const layout = figure.layout;
    Object.assign(layout, {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", uirevision: "keep", height: figure.height,
      margin: figure.webgl ? { l: 0, r: 0, t: 28, b: 0 } : { l: 62, r: 10, t: 34, b: 46 },
      font: { family: "system-ui, -apple-system, 'Segoe UI', Roboto, Arial, sans-serif", size: 12.5, color: color.ink },
      hoverlabel: { bgcolor: color.paper, bordercolor: color.line, font: { color: color.ink } },
      modebar: { bgcolor: "rgba(0,0,0,0)", color: color.line, activecolor: color.soft }
    });
    const axis = { gridcolor: color.grid, linecolor: color.line, zeroline: false, showline: true, ticks: "outside", tickcolor: color.line, ticklen: 4, automargin: true };
    for (const key of Object.keys(layout)) {
      if (/^[xy]axis\d*$/.test(key)) {
        // plotly.js draws powers of ten a quarter larger than it is told
        layout[key] = Object.assign({}, axis, { tickfont: { size: layout[key].exponentformat === "power" ? 10 : 12 } }, layout[key]);
      }
      if (/^scene\d*$/.test(key)) {
        for (const name of ["xaxis", "yaxis", "zaxis"]) {
          Object.assign(layout[key][name], { gridcolor: color.line, linecolor: color.line, zeroline: false, showbackground: false, showspikes: false, nticks: 6, tickfont: { size: 10.5, color: color.soft } });
        }
        layout[key].camera = { eye: { x: 1.04, y: -1.79, z: 0.73 }, center: { x: -0.05, y: -0.03, z: -0.14 } };
      }
    }
    for (const note of layout.annotations) note.font.color = color.ink;
    for (const trace of figure.traces) {
      const shade = color[trace.meta.role];
      trace.line = Object.assign({ color: shade }, trace.line);
      trace.marker = Object.assign({ color: shade, size: 2.5 }, trace.marker);
      if (trace.fill) trace.fillcolor = shade + "33";
    }
    return figure;
  }

  // A camera that one scene got from the mouse is handed to the other, at most once a frame.
  function linkCameras(plot) {
    let busy = false;
    function follow(change) {
      const from = ["scene", "scene2"].find((name) => change && change[name + ".camera"]);
      if (!from || busy) return;
      busy = true;
      const other = from === "scene" ? "scene2" : "scene";
      window.requestAnimationFrame(function () {
        window.Plotly.relayout(plot, { [other + ".camera"]: change[from + ".camera"] }).finally(function () { busy = false; });
      });
    }
    plot.on("plotly_relayouting", follow);
    plot.on("plotly_relayout", follow);
  }

  function draw() {
    const color = colors[scheme.matches ? "dark" : "light"];
    const figures = JSON.parse(text);
    for (const name of Object.keys(figures)) {
      const plot = document.getElementById("plot-" + name);
      const frame = plot.closest("figure");
      const figure = figures[name];
      if (typeof window.Plotly === "undefined" || (figure.webgl && !hasWebgl())) {
        frame.classList.add("still");
        continue;
      }
      paint(figure, color);
      const first = !plot.classList.contains("drawn");
      window.Plotly.react(plot, figure.traces, figure.layout, config).then(function () {
        plot.classList.add("drawn");
        if (first && figure.webgl) linkCameras(plot);
      }).catch(function () { frame.classList.add("still"); });
    }
  }

  draw();
  scheme.addEventListener("change", draw);
})();
