//! The element types of tensors, and how many bytes they take.

/// A tensor's element type, by ggml's number; only types that a file may hold exist.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct GgmlType(&'static Row);

#[derive(PartialEq, Eq, Hash)]
struct Row {
    id: u32,
    name: &'static str,
    block_elements: u32,
    block_bytes: u32,
}

const fn row(id: u32, name: &'static str, block_elements: u32, block_bytes: u32) -> Row {
    Row {
        id,
        name,
        block_elements,
        block_bytes,
    }
}

/// After ggml's `type_traits`; numbers that are absent were removed from GGUF.
static TABLE: [Row; 35] = [
    row(0, "F32", 1, 4),
    row(1, "F16", 1, 2),
    row(2, "Q4_0", 32, 18),
    row(3, "Q4_1", 32, 20),
    row(6, "Q5_0", 32, 22),
    row(7, "Q5_1", 32, 24),
    row(8, "Q8_0", 32, 34),
    row(9, "Q8_1", 32, 36),
    row(10, "Q2_K", 256, 84),
    row(11, "Q3_K", 256, 110),
    row(12, "Q4_K", 256, 144),
    row(13, "Q5_K", 256, 176),
    row(14, "Q6_K", 256, 210),
    row(15, "Q8_K", 256, 292),
    row(16, "IQ2_XXS", 256, 66),
    row(17, "IQ2_XS", 256, 74),
    row(18, "IQ3_XXS", 256, 98),
    row(19, "IQ1_S", 256, 50),
    row(20, "IQ4_NL", 32, 18),
    row(21, "IQ3_S", 256, 110),
    row(22, "IQ2_S", 256, 82),
    row(23, "IQ4_XS", 256, 136),
    row(24, "I8", 1, 1),
    row(25, "I16", 1, 2),
    row(26, "I32", 1, 4),
    row(27, "I64", 1, 8),
    row(28, "F64", 1, 8),
    row(29, "IQ1_M", 256, 56),
    row(30, "BF16", 1, 2),
    row(34, "TQ1_0", 256, 54),
    row(35, "TQ2_0", 256, 66),
    row(39, "MXFP4", 32, 17),
    row(40, "NVFP4", 64, 36),
    row(41, "Q1_0", 128, 18),
    row(42, "Q2_0", 64, 18),
];

impl GgmlType {
    /// 32-bit floats.
    pub const F32: Self = Self(&TABLE[0]);
    /// 16-bit floats.
    pub const F16: Self = Self(&TABLE[1]);
    /// 4-bit blocks of 32 with a scale.
    pub const Q4_0: Self = Self(&TABLE[2]);
    /// 8-bit blocks of 32 with a scale.
    pub const Q8_0: Self = Self(&TABLE[6]);

    /// The type with ggml's number `id`, if a file may hold it.
    pub fn from_id(id: u32) -> Option<Self> {
        TABLE.iter().find(|row| row.id == id).map(Self)
    }

    /// Every type that a file may hold.
    pub fn all() -> impl Iterator<Item = Self> {
        TABLE.iter().map(Self)
    }

    /// ggml's number.
    pub fn id(self) -> u32 {
        self.0.id
    }

    /// ggml's name, such as `Q4_K`.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Elements of a block; a row holds whole blocks.
    pub fn block_elements(self) -> u64 {
        self.0.block_elements.into()
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> u64 {
        self.0.block_bytes.into()
    }

    /// Bytes of a row of `elements`; `None` where it is no whole number of blocks or too large
    /// for a `u64`.
    pub fn row_bytes(self, elements: u64) -> Option<u64> {
        elements
            .is_multiple_of(self.block_elements())
            .then(|| (elements / self.block_elements()).checked_mul(self.block_bytes()))?
    }

    /// Bytes of a tensor, `dims[0]` being the length of a row; `None` as for
    /// [`row_bytes`](Self::row_bytes).
    pub fn tensor_bytes(self, dims: &[u64]) -> Option<u64> {
        let (&row, rows) = dims.split_first().unwrap_or((&1, &[]));
        rows.iter()
            .try_fold(self.row_bytes(row)?, |bytes, &dim| bytes.checked_mul(dim))
    }
}

impl std::fmt::Debug for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0.name)
    }
}

impl std::fmt::Display for GgmlType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.0.name)
    }
}
