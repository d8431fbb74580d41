# If DANGER_DOCKER_BUILD_CACHE_HOST_DIR is set, the image's layers are cached below it, per CONTAINER_NAME.
# It is the absolute path of a directory that must be created in advance, with room for two caches per task.
# Prefixed with DANGER, because files below it are removed. Base images are not cached. The docker engine
# must be able to export a cache of type=local: https://docs.docker.com/build/cache/backends/local/
def docker_build_cached(run, cmd, *args, **kwargs):
    if not (host_dir := os.getenv("DANGER_DOCKER_BUILD_CACHE_HOST_DIR")):
        return run(cmd, *args, **kwargs)
    if not os.access(f"{host_dir}/.", os.W_OK):
        sys.exit("Error: DANGER_DOCKER_BUILD_CACHE_HOST_DIR must be a writable directory, created in advance.")
    cache = f"{host_dir}/" + (os.getenv("CONTAINER_NAME") or sys.exit("Error: CONTAINER_NAME must not be empty."))
    new = f"{cache}~new.{os.urandom(8).hex()}"
    leftovers = [new, f"{new}.old"]
    with open(f"{cache}~lock", "ab") as lock:
        # Shared for as long as this run may read the cache. Replacing the cache takes it exclusively.
        fcntl.flock(lock, fcntl.LOCK_SH)
        # option: cache-to
        received = []  # Remember a signal, so that the build ends before the cleanup.
        handlers = {s: signal.signal(s, lambda *args: received.append(args[0])) for s in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM) if signal.getsignal(s) != signal.SIG_IGN}
        try:
            result = run([*cmd, f"--cache-from=type=local,src={cache}", f"--cache-to=type=local,dest={new},mode=max,ignore-error=true"], *args, **kwargs)
            try:
                # While another run reads the cache it can't be replaced. That run will do so.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                leftovers += glob.glob(f"{glob.escape(cache)}~new.*")  # Also those of runs that were killed.
                if not getattr(result, "returncode", result) and os.path.exists(f"{new}/index.json"):
                    if os.path.lexists(cache):
                        os.rename(cache, f"{new}.old")
                    os.rename(new, cache)
            except OSError as e:
                if os.path.lexists(f"{new}.old"):
                    os.rename(f"{new}.old", cache)
                print(f"The docker build cache was not replaced: {e}", file=sys.stderr)
            return result
        finally:
            subprocess.call(["rm", "-rf", *leftovers]) and subprocess.call(["rm", "-rf", *leftovers])  # Once more if a signal ended the first.
            for s, handler in handlers.items():
                signal.signal(s, handler)
            if received:
                signal.raise_signal(received[0])
