-- Asks for three scripts in turn, waits between requests so that the load is
-- bounded, and looks at every answer.
local paths = {"/hello.php", "/alloc.php", "/sleep.php", "/hello.php"}
local threads, n = {}, 0

function setup(thread) table.insert(threads, thread) end

function init(args) wrong = 0 end

function request()
   n = n + 1
   return wrk.format("GET", paths[n % #paths + 1])
end

function delay() return math.random(10, 50) end -- ms

function response(status, headers, body)
   if status ~= 200 or body:sub(-3) ~= "ok\n" then wrong = wrong + 1 end
end

function done(summary, latency, requests)
   local wrong, e = 0, summary.errors
   for _, t in ipairs(threads) do wrong = wrong + t:get("wrong") end
   io.write(string.format("RESULT %d %d %d %d %d %d %d %d %d\n", summary.requests, wrong,
      e.connect, e.read, e.write, e.timeout, latency:percentile(50), latency:percentile(99), latency.max))
end
