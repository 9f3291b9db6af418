"""A Flotilla worker in Python, standard library only: claims by name, heartbeats, completes."""
import hashlib, http.client, json, sys, threading, time, urllib.error, urllib.request

urls, name, worker_id, hold = sys.argv[1].split(","), sys.argv[2], sys.argv[3], float(sys.argv[4])


def call(path, body):
    """Any member answers anything: on 503 or a dead member, the next one is asked."""
    deadline = time.time() + 30
    while True:
        request = urllib.request.Request(urls[0] + path, json.dumps(body).encode(), {"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=70) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            if error.code not in (429, 503):
                return error.code, json.load(error)
        except (OSError, http.client.HTTPException, json.JSONDecodeError):
            pass
        if time.time() > deadline:
            raise SystemExit("no member answers")
        urls.append(urls.pop(0))
        time.sleep(0.1)


def say(**report):
    """One write a line: print() of two threads would run into each other."""
    sys.stdout.write(json.dumps(report) + "\n")
    sys.stdout.flush()


def work(task):
    lease = {"task_id": task["id"], "attempt": task["lease"]["attempt"], "fence": task["lease"]["fence"]}
    end = time.time() + hold
    while time.time() < end:
        verdict = call("/api/leases/heartbeat", {"worker_id": worker_id, "leases": [lease]})[1]["leases"][0]["status"]
        if verdict != "ok":
            return say(task=task["id"], verdict=verdict)
        time.sleep(min(0.3, hold))
    digest = hashlib.sha256(json.dumps(task["payload"]).encode()).hexdigest()
    body = {"worker_id": worker_id, "attempt": lease["attempt"], "fence": lease["fence"], "result": digest}
    first, _ = call(f"/api/leases/{task['id']}/complete", body)
    again, _ = call(f"/api/leases/{task['id']}/complete", body)
    stale, problem = call(f"/api/leases/{task['id']}/complete", {**body, "fence": lease["fence"] - 1})
    say(task=task["id"], first=first, again=again, stale=stale, code=problem.get("code"))


while True:
    claim = {"worker_id": worker_id, "request_id": f"{worker_id}-{time.time_ns()}", "names": [name], "max": 4, "wait_ms": 20000}
    for task in call("/api/leases/claim", claim)[1].get("tasks", []):
        threading.Thread(target=work, args=(task,), daemon=True).start()
