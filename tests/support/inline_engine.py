"""Workers without processes, for what gives them tasks: deaths and the order of ends are chosen."""

from geo4d.batch.engine import Event


class Killed(SystemExit):
    """In place of a process's end."""


class InlineEngine:
    """Workers in this process; the last that was given something goes first. Some die once, after so many windows."""

    def __init__(self, job, settings, deaths=()) -> None:
        self.job, self.settings, self.deaths = job, settings, list(deaths)
        self.loaded, self.tasks, self.events = {}, {}, []
        self.given: list[tuple[int, str]] = []

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.loaded.clear()

    stop = __exit__

    def start(self, number):
        self.loaded[number] = self.job.load(self.settings)
        self.events.append(Event("ready", number, note=self.loaded[number].identity))

    def idle(self):
        return [number for number in self.loaded if number not in self.tasks]

    def submit(self, number, task):
        self.tasks[number] = task
        self.given.append((number, task.name))

    def kill(self, name):
        raise NotImplementedError

    def wait(self, timeout_s):
        if self.tasks:
            number, task = self.tasks.popitem()
            most = self.deaths.pop(0) if self.deaths else 99
            predicted = []

            def on_progress(stage, done, total):
                predicted.append(done)
                if len(predicted) >= most:
                    raise Killed

            try:
                self.events.append(
                    Event("ended", number, task, self.job.run(self.loaded[number], task, on_progress))
                )
            except Killed:
                self.events.append(Event("died", number, task, exit_code=137, reason="killed"))
                self.start(number)
        events, self.events = self.events, []
        return events
