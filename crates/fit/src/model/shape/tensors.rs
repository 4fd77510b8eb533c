//! Tensors of each kind of layer, and what the layer keeps.

use super::{Extras, Feed, Form, Grouped, Latent, Mixer, Role, Tensor};
use crate::model::Attention;

impl Mixer {
    pub(super) fn tensors(self, hidden: u64) -> Vec<Tensor> {
        match self {
            Self::Grouped(grouped) => grouped.tensors(hidden),
            Self::Latent(latent) => latent.tensors(hidden),
            Self::Delta {
                key_heads,
                value_heads,
                key_dim,
                value_dim,
                conv,
            } => {
                let (keys, values) = (key_heads * key_dim, value_heads * value_dim);
                vec![
                    Tensor::new(Role::Fused, hidden, 2 * keys + values),
                    Tensor::new(Role::Other, hidden, values),
                    Tensor::new(Role::Other, hidden, 2 * value_heads),
                    Tensor::float(conv * (2 * keys + values) + 2 * value_heads + value_dim),
                    Tensor::new(Role::Other, values, hidden),
                ]
            }
            Self::Mamba {
                heads,
                head_dim,
                groups,
                state,
                conv,
            } => {
                let inner = heads * head_dim;
                let mixed = inner + 2 * groups * state;
                vec![
                    Tensor::new(Role::Other, hidden, inner + mixed + heads),
                    Tensor::float((conv + 1) * mixed + 3 * heads + inner),
                    Tensor::new(Role::Other, inner, hidden),
                ]
            }
            Self::None => Vec::new(),
        }
    }

    /// What it keeps. Recurrent states are those of llama.cpp's `llama-hparams.cpp`, `n_embd_r`
    /// and `n_embd_s`, in 32-bit floats.
    pub(super) fn attention(self) -> Attention {
        match self {
            Self::Grouped(grouped) => grouped.attention(),
            Self::Latent(latent) => Attention::Latent {
                kv_lora_rank: narrow(latent.kv_rank),
                rope_dims: narrow(latent.rope),
                index_dims: narrow(latent.index_dim),
            },
            Self::Delta {
                key_heads,
                value_heads,
                key_dim,
                value_dim,
                conv,
            } => {
                let inner = value_heads * value_dim;
                let mixed = inner + 2 * key_heads * key_dim;
                recurrent(conv, mixed, key_dim * inner)
            }
            Self::Mamba {
                heads,
                head_dim,
                groups,
                state,
                conv,
            } => {
                let inner = heads * head_dim;
                recurrent(conv, inner + 2 * groups * state, state * inner)
            }
            Self::None => Attention::None,
        }
    }
}

impl Grouped {
    fn tensors(self, hidden: u64) -> Vec<Tensor> {
        let (queries, outputs) = (self.heads * self.key_dim, self.heads * self.value_dim);
        let (keys, values) = (self.kv_heads * self.key_dim, self.kv_heads * self.value_dim);
        let row = |role, rows| Tensor::new(role, hidden, rows);
        let mut all = match self.extras {
            Extras::Plain => vec![
                row(Role::Query, queries),
                row(Role::Key, keys),
                row(Role::Value, values),
            ],
            Extras::Gated => vec![
                row(Role::Query, 2 * queries),
                row(Role::Key, keys),
                row(Role::Value, values),
            ],
            Extras::Fused => vec![row(Role::Fused, queries + keys + values)],
            Extras::KeysAsValues => vec![row(Role::Query, queries), row(Role::Key, keys)],
            Extras::Borrowed => vec![row(Role::Query, queries)],
        };
        all.push(Tensor::new(Role::Output, outputs, hidden));
        all.push(Tensor::float(self.biases));
        all
    }

    fn attention(self) -> Attention {
        let (kv_heads, key_dim, value_dim) = (
            narrow(self.kv_heads),
            narrow(self.key_dim),
            narrow(self.value_dim),
        );
        match (self.extras, self.window) {
            (Extras::Borrowed, _) => Attention::None,
            (_, 0) => Attention::Full {
                kv_heads,
                key_dim,
                value_dim,
            },
            (_, window) => Attention::Sliding {
                kv_heads,
                key_dim,
                value_dim,
                window,
            },
        }
    }
}

impl Latent {
    fn tensors(self, hidden: u64) -> Vec<Tensor> {
        let queries = self.heads * (self.nope + self.rope);
        let mut all = if self.q_rank == 0 {
            vec![Tensor::new(Role::Query, hidden, queries)]
        } else {
            vec![
                Tensor::new(Role::Other, hidden, self.q_rank),
                Tensor::new(Role::Other, self.q_rank, queries),
            ]
        };
        all.extend([
            Tensor::new(Role::Other, hidden, self.kv_rank + self.rope),
            Tensor::new(Role::Other, self.nope, self.kv_rank * self.heads),
            Tensor::new(Role::Other, self.kv_rank, self.value_dim * self.heads),
            Tensor::new(Role::Output, self.heads * self.value_dim, hidden),
            Tensor::float(self.q_rank + self.kv_rank),
        ]);
        if self.index_dim > 0 {
            let input = if self.q_rank == 0 {
                hidden
            } else {
                self.q_rank
            };
            all.extend([
                Tensor::new(Role::Other, hidden, self.index_dim + self.index_heads),
                Tensor::new(Role::Other, input, self.index_heads * self.index_dim),
                Tensor::float(2 * self.index_dim),
            ]);
        }
        all
    }
}

impl Feed {
    pub(super) fn tensors(self, hidden: u64) -> Vec<Tensor> {
        match self {
            Self::Dense { width, form } => matrices(hidden, width, 1, form, false),
            Self::Experts {
                count,
                width,
                input,
                form,
                biases,
                ..
            } => {
                let mut all = matrices(input, width, count, form, true);
                all.push(Tensor {
                    routed: true,
                    ..Tensor::float(biases)
                });
                all.push(Tensor::new(Role::Float, hidden, count));
                if input != hidden {
                    all.push(Tensor::new(Role::Other, hidden, input));
                    all.push(Tensor::new(Role::Other, input, hidden));
                }
                all
            }
            Self::Other { params, row } => vec![Tensor {
                role: Role::Other,
                routed: false,
                params,
                row,
            }],
        }
    }
}

fn matrices(input: u64, width: u64, count: u64, form: Form, routed: bool) -> Vec<Tensor> {
    let tensor = |role, row, rows| Tensor {
        routed,
        ..Tensor::new(role, row, rows * count)
    };
    let mut all = match form {
        Form::Gated => vec![
            tensor(Role::Gate, input, width),
            tensor(Role::Up, input, width),
        ],
        Form::FusedGate => vec![tensor(Role::Up, input, 2 * width)],
        Form::Plain => vec![tensor(Role::Up, input, width)],
    };
    all.push(tensor(Role::Down, width, input));
    all
}

fn recurrent(conv: u64, mixed: u64, state: u64) -> Attention {
    Attention::Recurrent {
        state_bytes: 4 * (conv.saturating_sub(1) * mixed + state),
    }
}

/// Widths are bounded long before 32 bits.
fn narrow(width: u64) -> u32 {
    u32::try_from(width).unwrap_or(u32::MAX)
}
