//! Reads an input as a list of instructions.

/// What is left of the input. At its end everything reads as 0.
pub(crate) struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self(data)
    }

    pub(crate) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    pub(crate) fn number(&mut self) -> u64 {
        let mut bytes = [0; 8];
        let given = self.bytes(8);
        bytes[..given.len()].copy_from_slice(given);
        u64::from_le_bytes(bytes)
    }

    /// A place among `count` things, which must be some.
    pub(crate) fn index(&mut self, count: usize) -> usize {
        (usize::from(self.byte()) << 8 | usize::from(self.byte())) % count
    }

    /// At most 255 bytes, after one that says how many.
    pub(crate) fn some_bytes(&mut self) -> Vec<u8> {
        let length = usize::from(self.byte());
        self.bytes(length).to_vec()
    }

    pub(crate) fn text(&mut self) -> String {
        String::from_utf8_lossy(&self.some_bytes()).into_owned()
    }

    fn bytes(&mut self, length: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(length.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
