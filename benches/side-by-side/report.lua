-- Prints wrk's sums as one line of plain numbers; runs once, after the load, and so costs the load nothing.
function done(summary, latency)
  local e = summary.errors
  io.write(string.format("sums %d %d %d %d %d %d %d %d %d\n", summary.requests, summary.bytes, summary.duration,
    e.status, e.connect + e.read + e.write, e.timeout, latency:percentile(50), latency:percentile(99), latency.max))
end
