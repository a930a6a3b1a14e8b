//! The command line in, an exit code out.

/// Calls allocate small and often, on the thread that frees; the system's allocators are slower at that, and
/// musl's, which the static binary would get, is many times slower.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    outrigger::cli::main()
}
