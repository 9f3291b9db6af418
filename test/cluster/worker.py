"""A Flotilla worker in Python, standard library only: claims by name, heartbeats, completes."""
import hashlib, http.client, json, sys, threading, time, urllib.error, urllib.request

urls, name, worker_id, hold = sys.argv[1].split(","), sys.argv[2], sys.argv[3], float(sys.argv[4])

def call(path, **body):
    """Any member answers anything: on 429, 503 or a dead member, the next one is asked."""
    body, deadline = json.dumps({"worker_id": worker_id, **body}).encode(), time.time() + 30
    while time.time() < deadline:
        request = urllib.request.Request(urls[0] + "/api/leases/" + path, body, {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=70) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                return error.code, json.load(error)
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            pass
        urls.append(urls.pop(0))
        time.sleep(0.1)
    raise SystemExit("no member answers")

def work(task):
    lease, end = {key: task["lease"][key] for key in ("attempt", "fence")}, time.time() + hold
    while time.time() < end:
        verdict = call("heartbeat", leases=[{"task_id": task["id"], **lease}])[1]["leases"][0]["status"]
        if verdict != "ok":
            return sys.stdout.write(json.dumps({"task": task["id"], "verdict": verdict}) + "\n")
        time.sleep(min(0.3, hold))
    path, result = f"{task['id']}/complete", hashlib.sha256(json.dumps(task["payload"]).encode()).hexdigest()
    first, again = (call(path, **lease, result=result)[0] for _ in range(2))
    stale, problem = call(path, attempt=lease["attempt"], fence=lease["fence"] - 1, result=result)
    said = {"task": task["id"], "first": first, "again": again, "stale": stale, "code": problem.get("code")}
    sys.stdout.write(json.dumps(said) + "\n")  # one write a line: print() of two threads would run into each other
    sys.stdout.flush()

while True:  # the request id makes the repeat of a claim whose answer was lost bring the same tasks
    for task in call("claim", request_id=f"{time.time_ns()}", names=[name], max=4, wait_ms=20000)[1].get("tasks", []):
        threading.Thread(target=work, args=(task,), daemon=True).start()
