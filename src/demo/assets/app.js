// Shows live what happens to the connections of the page; each panel works where it is on the page.
(function () {
  "use strict";
  var byId = function (id) { return document.getElementById(id); };

  function lamp(id, text, good) {
    byId(id).textContent = text;
    byId(id).className = "lamp " + (good ? "good" : "bad");
  }

  function log(id, text) {
    var line = document.createElement("li");
    line.textContent = new Date().toLocaleTimeString() + "  " + text;
    byId(id).prepend(line);
    while (byId(id).children.length > 6) { byId(id).lastChild.remove(); }
  }

  function openClock() {
    var socket = new WebSocket(location.origin.replace(/^http/, "ws") + "/ws");
    byId("clock-again").hidden = true;
    socket.onopen = function () { lamp("clock-state", "open", true); log("clock-log", "opened"); };
    socket.onmessage = function (message) { byId("clock").textContent = message.data; };
    socket.onclose = function (close) {
      var why = "closed, code " + close.code + (close.reason ? ": " + close.reason : "");
      lamp("clock-state", why, false);
      log("clock-log", why);
      byId("clock-again").hidden = false;
    };
  }

  function openTicker() {
    var source = new EventSource("/events");
    source.onopen = function () { lamp("ticker-state", "open", true); log("ticker-log", "opened"); };
    source.onmessage = function (message) {
      var prices = JSON.parse(message.data);
      Object.keys(prices).forEach(function (name) { byId(name).textContent = prices[name]; });
    };
    source.onerror = function () {
      var gone = source.readyState === EventSource.CLOSED;
      var what = gone ? "refused, not tried again" : "cut, trying again";
      lamp("ticker-state", what, false);
      log("ticker-log", what);
    };
  }

  function poll() {
    fetch("/notifications", { headers: { Accept: "application/json" } }).then(function (answer) {
      if (answer.ok) {
        return answer.json().then(function (notices) {
          byId("unread").textContent = notices.unread;
          lamp("poll-state", answer.status + " at " + notices.at, true);
          setTimeout(poll, 3000);
        });
      }
      return answer.text().then(function (text) {
        var told = answer.status + " " + text;
        try { told = answer.status + " " + JSON.parse(text).reason; } catch (e) { /* no JSON: shown as it is */ }
        lamp("poll-state", told, false);
        log("poll-log", told);
      });
    }).catch(function () {
      lamp("poll-state", "no answer", false);
      setTimeout(poll, 3000);
    });
  }

  var opened = Date.now();
  var since = Number(byId("times").dataset.signedIn);
  setInterval(function () {
    var seconds = Math.floor((Date.now() - opened) / 1000);
    byId("opened").textContent = seconds;
    byId("signed-in").textContent = since + seconds;
  }, 500);
  if (byId("clock")) { openClock(); byId("clock-again").onclick = openClock; }
  if (byId("bolts")) { openTicker(); }
  if (byId("unread")) { poll(); }
})();
