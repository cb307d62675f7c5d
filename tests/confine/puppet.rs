//! Makes another process's own thread make a system call of our choice, as code that took it over would: by ptrace, which
//! root may do to it (and it to nobody). Not gdb, whose calls of functions fail on machines with registers that it does
//! not know.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// What a call is given.
pub(crate) enum Arg<'a> {
    Number(i64),
    /// A pointer to a copy of these bytes; texts need their own closing NUL.
    Bytes(&'a [u8]),
}

/// A thread that waits in a system call of its own, and between our calls goes on doing so.
pub(crate) struct Puppet {
    pid: i32,
    memory: File,
    before: Registers,
}

impl Puppet {
    /// Takes hold of the first thread of process `pid`, which must wait for something.
    pub(crate) fn seize(pid: u32) -> Puppet {
        let pid = i32::try_from(pid).expect("a process number");
        ptrace(libc::PTRACE_SEIZE, pid, 0, 0).expect("root may trace it");
        ptrace(libc::PTRACE_INTERRUPT, pid, 0, 0).expect("it is traced");
        wait(pid);
        let memory = File::options()
            .read(true)
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .expect("it is traced");
        let before = registers(pid);
        Puppet { pid, memory, before }
    }

    /// What the call gives, or the number of its error.
    pub(crate) fn call(&mut self, number: i64, args: &[Arg<'_>]) -> Result<i64, i32> {
        let mut room = (machine::stack(&self.before) - ROOM) & !15;
        let mut given = [0; 6];
        for (slot, arg) in given.iter_mut().zip(args) {
            *slot = match arg {
                Arg::Number(number) => *number as u64,
                Arg::Bytes(bytes) => {
                    let at = room;
                    self.memory.write_all_at(bytes, at).expect("its stack");
                    room += (bytes.len() as u64 | 15) + 1;
                    at
                }
            };
        }
        let mut now = self.before;
        self.rewind(&mut now);
        machine::ask(&mut now, number as u64, given);
        set_registers(self.pid, &now);
        // Into the call, and out of it.
        for _ in 0..2 {
            ptrace(libc::PTRACE_SYSCALL, self.pid, 0, 0).expect("it stands still");
            wait(self.pid);
        }
        match machine::answer(&registers(self.pid)) {
            error @ -4095..0 => Err(-error as i32),
            value => Ok(value),
        }
    }

    /// To the instruction by which it asked the kernel.
    fn rewind(&self, registers: &mut Registers) {
        let at = machine::place(registers);
        for place in [at, at - machine::CALL.len() as u64] {
            let mut bytes = [0; machine::CALL.len()];
            let read = self.memory.read_exact_at(&mut bytes, place);
            if read.is_ok() && bytes == machine::CALL {
                return machine::go(registers, place);
            }
        }
        panic!("the thread waits for nothing");
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        let mut registers = self.before;
        self.rewind(&mut registers);
        machine::again(&mut registers);
        set_registers(self.pid, &registers);
        let _ = ptrace(libc::PTRACE_DETACH, self.pid, 0, 0);
    }
}

fn ptrace(request: libc::c_uint, pid: i32, address: u64, data: u64) -> io::Result<()> {
    // SAFETY: the requests made here read and write nothing of this process but, for registers, what `data` points to:
    // an iovec over a buffer of the size that it names, alive across the call.
    let rc = unsafe { libc::ptrace(request as _, pid, address as *mut c_void, data as *mut c_void) };
    if rc == -1 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

fn wait(pid: i32) {
    let mut status = 0;
    loop {
        // SAFETY: `status` is ours and lives across the call.
        let rc = unsafe { libc::waitpid(pid, &raw mut status, libc::__WALL) };
        match io::Error::last_os_error().kind() {
            _ if rc == pid => break,
            io::ErrorKind::Interrupted => {}
            _ => panic!("waiting for {pid}: {}", io::Error::last_os_error()),
        }
    }
    assert!(libc::WIFSTOPPED(status), "{pid} ended: {status:#x}");
}

/// Registers as PTRACE_GETREGSET gives them (NT_PRSTATUS; asm/ptrace.h).
fn regset(request: libc::c_uint, pid: i32, registers: &mut Registers) {
    let mut whole = libc::iovec {
        iov_base: (&raw mut *registers).cast(),
        iov_len: size_of::<Registers>(),
    };
    let data = (&raw mut whole) as u64;
    ptrace(request, pid, libc::NT_PRSTATUS as u64, data).expect("it stands still");
}

type Registers = libc::user_regs_struct;

fn registers(pid: i32) -> Registers {
    // SAFETY: plain integers, of which zero is one.
    let mut registers = unsafe { std::mem::zeroed() };
    regset(libc::PTRACE_GETREGSET as _, pid, &mut registers);
    registers
}

fn set_registers(pid: i32, registers: &Registers) {
    regset(libc::PTRACE_SETREGSET as _, pid, &mut registers.clone());
}

#[cfg(target_arch = "x86_64")]
mod machine {
    use super::Registers;

    /// `syscall`
    pub(super) const CALL: [u8; 2] = [0x0f, 0x05];

    pub(super) fn stack(registers: &Registers) -> u64 {
        registers.rsp
    }
    pub(super) fn place(registers: &Registers) -> u64 {
        registers.rip
    }
    pub(super) fn go(registers: &mut Registers, place: u64) {
        registers.rip = place;
    }
    pub(super) fn ask(registers: &mut Registers, number: u64, args: [u64; 6]) {
        registers.rax = number;
        registers.orig_rax = u64::MAX; // no call of its own to be restarted
        [
            registers.rdi,
            registers.rsi,
            registers.rdx,
            registers.r10,
            registers.r8,
            registers.r9,
        ] = args;
    }
    pub(super) fn answer(registers: &Registers) -> i64 {
        registers.rax as i64
    }
    /// The call it waited in, once more.
    pub(super) fn again(registers: &mut Registers) {
        registers.rax = registers.orig_rax;
        registers.orig_rax = u64::MAX;
    }
}

#[cfg(target_arch = "aarch64")]
mod machine {
    use super::Registers;

    /// `svc #0`
    pub(super) const CALL: [u8; 4] = [0x01, 0x00, 0x00, 0xd4];

    pub(super) fn stack(registers: &Registers) -> u64 {
        registers.sp
    }
    pub(super) fn place(registers: &Registers) -> u64 {
        registers.pc
    }
    pub(super) fn go(registers: &mut Registers, place: u64) {
        registers.pc = place;
    }
    pub(super) fn ask(registers: &mut Registers, number: u64, args: [u64; 6]) {
        registers.regs[..6].copy_from_slice(&args);
        registers.regs[8] = number;
    }
    pub(super) fn answer(registers: &Registers) -> i64 {
        registers.regs[0] as i64
    }
    /// Linux has put back what the call was given before it stopped the thread.
    pub(super) fn again(_: &mut Registers) {}
}

/// Below what the thread has on its stack, and below what it may use there without saying so (128 bytes).
const ROOM: u64 = 4096;
