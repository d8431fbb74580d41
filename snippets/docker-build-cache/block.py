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
    with open(f"{cache}~lock", "ab") as lock, contextlib.ExitStack() as stack:
        # Shared for as long as this run may read the cache. Replacing the cache takes it exclusively.
        fcntl.flock(lock, fcntl.LOCK_SH)
        # option: cache-to
        new = f"{cache}~new.{os.urandom(8).hex()}"
        leftovers = [new, f"{new}.old"]
        # Remember a signal, so that the build ends before the cleanup. Raise it when all is as it was before.
        received = []
        stack.callback(signal.pthread_sigmask, signal.SIG_SETMASK, signal.pthread_sigmask(signal.SIG_BLOCK, []))
        stack.callback(lambda: [signal.raise_signal(s) for s in received[:1]])
        for s in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            if signal.getsignal(s) not in (signal.SIG_IGN, None):
                stack.callback(signal.signal, s, signal.signal(s, lambda s, *_: received.append(s)))
        stack.callback(signal.pthread_sigmask, signal.SIG_BLOCK, [signal.SIGINT, signal.SIGHUP, signal.SIGTERM])
        stack.callback(lambda: subprocess.run(["rm", "-rf", *leftovers], start_new_session=True))
        result = run([*cmd, f"--cache-from=type=local,src={cache}", f"--cache-to=type=local,dest={new},mode=max,ignore-error=true"], *args, **kwargs)
        try:
            # While another run reads the cache it can't be replaced. That run will do so.
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            leftovers += glob.glob(f"{glob.escape(cache)}~new.*")  # Also those of runs that were killed.
            if not getattr(result, "returncode", type(result) is int and result) and os.path.exists(f"{new}/index.json"):
                if os.path.lexists(cache):
                    os.rename(cache, f"{new}.old")
                os.rename(new, cache)
        except OSError as e:
            if os.path.lexists(f"{new}.old"):
                os.rename(f"{new}.old", cache)
            print(f"The docker build cache was not replaced: {e}")
        return result
