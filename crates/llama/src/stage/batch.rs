//! The arrays that `llama_decode` reads.

use brigade_wire::Span;
use llama_cpp_sys_2 as sys;

/// The arrays of a `llama_batch`, kept between calls.
#[derive(Debug, Default)]
pub(super) struct Batch {
    tokens: Vec<sys::llama_token>,
    positions: Vec<sys::llama_pos>,
    sequence_counts: Vec<i32>,
    sequences: Vec<sys::llama_seq_id>,
    sequence_pointers: Vec<*mut sys::llama_seq_id>,
    outputs: Vec<i8>,
}

impl Batch {
    /// Sets the arrays for these spans and returns the rows.
    pub(super) fn fill(&mut self, spans: &[Span], gives_logits: bool) -> usize {
        self.tokens.clear();
        self.positions.clear();
        self.sequences.clear();
        self.outputs.clear();
        for span in spans {
            let first_output = span.tokens.len() - span.logits_rows();
            for (index, &token) in span.tokens.iter().enumerate() {
                self.tokens.push(token as i32);
                self.positions.push((span.position as usize + index) as i32);
                self.sequences.push(span.seq.0 as i32);
                // Without the flag, a stage's last layer drops the row.
                let output = !gives_logits || index >= first_output;
                self.outputs.push(i8::from(output));
            }
        }
        let rows = self.tokens.len();
        self.sequence_counts.resize(rows, 1);
        self.sequence_pointers.clear();
        self.sequence_pointers
            .extend(self.sequences.iter_mut().map(std::ptr::from_mut));
        rows
    }

    /// The `llama_batch` over these arrays: tokens, or hidden states where given.
    pub(super) fn as_raw(&mut self, hidden: Option<&[f32]>) -> sys::llama_batch {
        sys::llama_batch {
            n_tokens: self.tokens.len() as i32,
            token: match hidden {
                Some(_) => std::ptr::null_mut(),
                None => self.tokens.as_mut_ptr(),
            },
            // llama.cpp only reads it.
            embd: hidden.map_or(std::ptr::null_mut(), |rows| rows.as_ptr().cast_mut()),
            pos: self.positions.as_mut_ptr(),
            n_seq_id: self.sequence_counts.as_mut_ptr(),
            seq_id: self.sequence_pointers.as_mut_ptr(),
            logits: self.outputs.as_mut_ptr(),
        }
    }
}
