// A page that is opened as a file may not start the worker of the search. Run it in a hidden frame instead.
// The plugin `offline` would load such a script from unpkg.com unless mkdocs.yml names one whose name has "iframe-worker".
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.documentElement.append(frame)
      const inner = frame.contentWindow
      inner.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      this.ready = new Promise((loaded) => {
        const script = frame.contentDocument.createElement("script")
        script.src = url
        script.onload = () => loaded(inner)
        frame.contentDocument.body.append(script)
      })
    }

    postMessage(data) {
      this.ready.then((inner) => inner.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
