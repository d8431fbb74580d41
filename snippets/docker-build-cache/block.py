# If DANGER_DOCKER_BUILD_CACHE_HOST_DIR is set, image layers are cached in it, but no base images. It must
# be the absolute path of a directory, created in advance, with room for two caches per CONTAINER_NAME.
# Files in it are removed, hence DANGER. The docker engine must be able to export a cache of type=local.
def docker_build_cached(run, cmd, **kwargs):
    if not (host_dir := os.getenv("DANGER_DOCKER_BUILD_CACHE_HOST_DIR")):
        return run(cmd, **kwargs)
    if not os.access(host_dir, os.W_OK) or not os.getenv("CONTAINER_NAME"):
        sys.exit("Error: DANGER_DOCKER_BUILD_CACHE_HOST_DIR must be writable, and CONTAINER_NAME not empty.")
    cache = f"{host_dir}/{os.environ['CONTAINER_NAME']}"
    try:
        fcntl.flock(lock := open(f"{cache}~lock", "ab"), fcntl.LOCK_SH)  # So no other run replaces the cache.
    except OSError as e:
        sys.exit(f"Error: DANGER_DOCKER_BUILD_CACHE_HOST_DIR must be a directory where flock works: {e}")
    new_cache = f"{cache}~new.{os.urandom(8).hex()}"
    cache_arg = [f"--cache-to=type=local,dest={new_cache},mode=max,ignore-error=true"]
    # option: cache-to
    if subprocess.call(["grep", "-qs", 'ref.name": *"latest"', f"{cache}/index.json"]) != 1:
        cache_arg += [f"--cache-from=type=local,src={cache}"]  # An untagged index fails the build.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP, signal.SIGINT, signal.SIGTERM])
    kwargs["preexec_fn"] = lambda: signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # Not in the build.
    result = None
    try:
        return (result := run([*cmd, *cache_arg], pass_fds=[lock.fileno()], **kwargs))
    finally:
        if result is None or result.returncode != 0:
            subprocess.call(["rm", "-rf", f"{new_cache}/index.json", new_cache])
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            indexes = [f"{cache}/index.json", *glob.glob(f"{glob.escape(cache)}~new.*/index.json")]
            newest = max(filter(os.path.exists, indexes), key=os.path.getmtime, default=indexes[0])
            if newest != indexes[0]:
                subprocess.run(["mv", "-T", cache, f"{new_cache}.old"], capture_output=True)
                subprocess.run(["mv", "-T", os.path.dirname(newest), cache])
                subprocess.run(["mv", "-nT", f"{new_cache}.old", cache], capture_output=True)  # If it failed.
            if os.path.exists(cache) or newest == indexes[0]:  # Never remove the only copy.
                subprocess.run(["rm", "-rf", *glob.glob(f"{glob.escape(cache)}~new.*")], capture_output=True)
        except BlockingIOError:
            print("The docker build cache was not replaced: another run uses it.", file=sys.stderr)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)  # After the cleanup, a blocked signal takes effect.
