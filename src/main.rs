//! Start-up only: the command line does the rest.

use std::process::ExitCode;

/// Tenure spends much of its time on many small buffers, over threads.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    tenure::cli::run(std::env::args_os())
}
