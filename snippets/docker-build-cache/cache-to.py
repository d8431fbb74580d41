if os.getenv("VARIABLE") != "VALUE":
    return run([*cmd, f"--cache-from=type=local,src={cache}"], *args, **kwargs)
