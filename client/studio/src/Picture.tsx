// A picture that gives way to the next one by a fade, never by a gap.

import type { ImageStatus } from "@scenewire/client";
import { useEffect, useState } from "react";
import { isWebAddress } from "./config.js";

interface Shown {
  url: string;
  /** The picture's own address, whichever of the two is shown. */
  of: string;
  ratio: number;
}

/** The thumbnail, and the picture itself, for not of every picture can one be made. No card is much wider than one. */
const addresses = ({ image_url, thumbnail_url }: ImageStatus): string[] =>
  [thumbnail_url, image_url].filter(isWebAddress);

async function load(url: string): Promise<number> {
  const image = new Image();
  image.src = url;
  // decoded before it is put in place: the fade starts with a picture, not with an empty box
  await image.decode();
  return image.naturalWidth / image.naturalHeight;
}

const NOTHING = { shown: null, before: null };

// a page in the background plays no animation
const isAnimated = () => !document.hidden && !matchMedia("(prefers-reduced-motion: reduce)").matches;

interface Props {
  image: ImageStatus | null;
  alt: string;
  label: string;
  onOpen(): void;
  onRatio(ratio: number): void;
}

export function Picture({ image, alt, label, onOpen, onRatio }: Props) {
  const [{ shown, before }, setPair] = useState<{ shown: Shown | null; before: Shown | null }>(NOTHING);
  const [lost, setLost] = useState(false);
  const [again, setAgain] = useState(0);
  const whole = image?.image_url ?? null;

  // another address, or another try, is another picture
  useEffect(() => {
    if (!image || !whole) return;
    let gone = false;
    setLost(false);
    (async () => {
      for (const url of addresses(image)) {
        try {
          const ratio = await load(url);
          if (gone) return;
          setPair(({ shown: last }) => ({
            shown: { url, of: whole, ratio },
            before: last && last.of !== whole && isAnimated() ? last : null,
          }));
          onRatio(ratio);
          return;
        } catch {
          // the next address, if there is one
        }
      }
      if (!gone) setLost(true);
    })();
    return () => {
      gone = true;
    };
  }, [whole, again]);

  return (
    <>
      {shown && (
        <button type="button" className="open" aria-label={label} onClick={onOpen}>
          {before && <img key={before.url} src={before.url} alt="" aria-hidden="true" className="leaving" />}
          <img
            key={shown.url}
            src={shown.url}
            alt={alt}
            className="arriving"
            onAnimationEnd={() => setPair((pair) => ({ ...pair, before: null }))}
          />
        </button>
      )}
      {lost && (
        <p className="lost">
          The picture could not be loaded.{" "}
          <button type="button" className="quiet small" onClick={() => setAgain(again + 1)}>
            Load again
          </button>
        </p>
      )}
    </>
  );
}
