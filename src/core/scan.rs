//! stub
/// stub
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub enum ScanKind {
    /// stub
    Syn,
}
